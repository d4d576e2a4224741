"""rosbag2 recordings, read and written without ROS, and folders of labelled images."""
