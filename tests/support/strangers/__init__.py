"""Twenty models as people write them, after tutorials and papers' repositories, by a hand that had not seen fastvae.

The function that ends each module returns (encoder, decoder, latent_shape, image_shape).
"""
