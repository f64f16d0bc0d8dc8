"""Looking at a finished run: samples, reconstructions, the test ELBO, importance-weighted log-likelihoods."""
