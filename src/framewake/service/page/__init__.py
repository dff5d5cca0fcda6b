"""The page in the browser: a client of the API, built with Gradio, which is imported only when a page is made."""
