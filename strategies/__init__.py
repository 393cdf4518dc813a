"""The strategies that ship with gclip: one file, one method, one paper.

Every module here is imported when a strategy's name is first asked for; dropping a file in is all
it takes to add one.
"""
