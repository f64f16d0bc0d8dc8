"""Small tools that every layer may import: files, terminal, errors, locks, and facts about the machine."""
