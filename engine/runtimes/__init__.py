"""What executes versions on a node. Never touches the log.

Import from the modules, so that commands can check a config without loading what executes it:
`configs` (pure), `runtime` (the port and its errors), `registry` (from a registration to a
runtime), `residency` (what is loaded, under a budget), `artifacts` (files, digests), `echo`,
`python`.
"""
