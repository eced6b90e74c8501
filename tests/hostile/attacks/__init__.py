"""What whoever took over QEMU or a helper of it would try, tried by the real process behind its real walls.

`puppet` makes a process do things, `attacker` has the verbs and the list, the other modules the attacks of each kind,
`house` the machines and processes around it, `report` what is said about it. `script/attack` runs them all.
"""
