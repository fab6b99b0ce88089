"""Lives in time: threads, the event loop, signals. What runs workflows for others."""
