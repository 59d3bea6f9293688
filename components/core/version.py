"""The version of Regraft, as written into every manifest."""

VERSION = "0.1.0"
