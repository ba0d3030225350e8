"""Every reader of foreign files, fed with damaged ones."""
