"""Every message that enters: HTTP, commands, inference requests, log events, timers."""
