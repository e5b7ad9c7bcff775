"""HTTP: events of three gateways, request bodies, pages."""
