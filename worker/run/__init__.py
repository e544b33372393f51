"""Parts of one claimed run: journal and files, log, archive, requests to people, executions."""
