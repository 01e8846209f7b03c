"""Edit lists: EDL, OTIO and XML in, the timeline of delivered shots out."""
