# What happens to the values of a layer between the convolutions.

cdef int check_activation(int activation) except -1
