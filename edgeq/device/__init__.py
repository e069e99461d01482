"""Running on a device from the desk: links, the agent that travels, provisioning, and the host's side."""
