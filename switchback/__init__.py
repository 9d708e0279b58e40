"""The front door: command line, settings, processes, embedded servers, client, replay tools."""
