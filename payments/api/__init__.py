"""The storefront API: strict JSON in, one domain call, a projection or a problem out."""
