"""Messages from agent to agent, ours beside the alternatives, counted at the receiving process."""
