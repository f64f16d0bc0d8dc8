"""Steps as flat graphs of operators, recorded once: of known models without checks, of others under guards."""
