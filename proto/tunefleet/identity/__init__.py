"""Who somebody is to a coordinator: join tokens, keys, certificates, and joining with them."""
