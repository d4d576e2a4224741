"""What both nodes and their clients need of ROS."""
