"""Commands in a state become events, or a refusal. One module per aggregate, all alike."""
