"""Tables, figures and metadata made from results/*.csv."""
