"""The sciences: one package a domain; neighbours never import each other."""
