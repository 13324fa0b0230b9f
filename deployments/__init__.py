"""Megrez-Omni on Ray Serve: four deployments behind OpenAI's HTTP API."""
