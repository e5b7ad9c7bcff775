"""Steps of the container image build."""
