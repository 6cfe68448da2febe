"""The web server: a bundle in, HTTP out. Imports kinglet.runtime and nothing heavier; starts with `kinglet serve`."""
