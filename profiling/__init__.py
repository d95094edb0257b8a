"""Records of compile and run events, and what is made of them. Imports no other part of Ingot."""
