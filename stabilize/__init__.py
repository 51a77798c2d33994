"""stabilize"""
