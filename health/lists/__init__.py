"""The lists that teams ask for: of each the rule who is on it, and why. What each rule says is in docs/lists.md."""
