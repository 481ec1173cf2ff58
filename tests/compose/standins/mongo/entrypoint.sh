#!/bin/sh
exec mongod "$@"
