"""What long work needs: device, processes, prefetching, a journal, provenance."""
