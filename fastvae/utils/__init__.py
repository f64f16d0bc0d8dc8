"""Small tools without a layer of their own; any module may import them."""
