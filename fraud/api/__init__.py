"""The storefront API of fraud: reviews, screenings, list entries, and what turned out to be fraud."""
