"""The operators, one file each: public function, checks, fake kernels, autograd, autocast, dispatch."""
