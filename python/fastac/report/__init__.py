"""A run or a comparison as one HTML page: `reading` takes in the folder, `drawing` and `parts` are what a page is made
of, `run_page`, `comparison_page` and `scaling_page` say what stands on it, `page` puts it into one file."""
