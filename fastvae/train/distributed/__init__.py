"""Several processes: launch, rendezvous, collectives, sharded weights. Knows nothing of training."""
