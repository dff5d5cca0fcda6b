"""Stateless parts that models are made of."""
