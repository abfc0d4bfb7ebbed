"""Training a base classifier under the noise under which it will be certified."""
