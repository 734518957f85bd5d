"""The API: typed objects for what users and components exchange, with their parsers and limits."""
