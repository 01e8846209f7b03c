"""What the evidence says, put together for the page that a producer reads: verdicts, media, model card."""
