"""What the director sets on its host: virtual addresses, and what brings intercepted packets to its sockets.

    wanted.py    what a configuration asks for; ``steps.py`` what has to be done for it, as commands, too. Pure
    netlink.py   addresses, rules and routes of the kernel, by pyroute2 (its only door); ``nft.py`` our table, by nft
    announce.py  gratuitous ARP and unsolicited neighbour advertisements; ``claim.py`` one director for a host
    host.py      one director's part of its host, from start to stop; ``command.py`` the same by hand

Ours is what carries our mark: routes and rules our protocol number, addresses our metric, the table its comment.  Nothing
else is ever changed; what stands in our way is an error that says so.
"""
