"""How the built-in models were made: facts, tokenizer, gradients, schedule. Not needed to run them.

python -m engine.runtimes.language.training <directory>
"""
