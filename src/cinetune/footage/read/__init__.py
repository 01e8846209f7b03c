"""Pictures and sound of what a film is made of: files in, frames with their colour and time out."""
