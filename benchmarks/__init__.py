"""What Kinglet promises, measured. Each benchmark writes one file in results/, from which README's tables are made."""
