"""Commands that need more than one room. They import what they need when they are called: `cion` starts fast."""
