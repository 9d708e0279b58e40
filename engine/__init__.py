"""What is decided and computed: decisions, routing, runtimes. Decisions and routing are pure."""
