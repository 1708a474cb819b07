"""Public data sets by their cards: what there is, and how it is fetched and unpacked safely."""
