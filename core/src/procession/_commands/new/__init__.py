"""What ``procession new`` writes: complete plugin projects, made from the files beside this.

A template is a file whose name ends with ``.template``. In names and texts, ``@name@`` stands for
the plugin's name, ``@Class@`` for that of its class, ``@package@`` for its package, ``@project@``
for its distribution, ``@series@`` for the release series of procession that it needs.
"""
