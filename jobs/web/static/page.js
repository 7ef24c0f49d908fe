// What htmx leaves to do.
