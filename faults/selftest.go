package main

// planted has scenarios in which something is wrong, each of which must be noticed. Their names begin with the promise.
var planted = []scenario{}

// noticed says whether a violation of the promise was noticed that the scenario's name begins with.
func (r *result) noticed() bool { return false }
